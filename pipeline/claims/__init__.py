"""The paper's claims, measured: arms that differ in one thing, paired over seeds."""
