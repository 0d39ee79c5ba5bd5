"""What training will take before it is tried: memory of each GPU, checkpoints on the disk.

Arithmetic on shapes alone; the model is made on the meta device, which holds no numbers.
"""
