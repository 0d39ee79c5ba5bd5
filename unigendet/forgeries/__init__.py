"""Small generator families that make labelled fakes for controlled experiments.

Each family is real (it is trained, then it generates) and small enough for a CPU. A family is
*aligned* where a fake keeps the content and the size of the real image it was made from, so that
only the generator's traces differ, and *own_decoder* where the pixels come out of the project's own
autoencoder: a claim that a detector profits from that autoencoder's latents counts only on families
that are not.
"""
