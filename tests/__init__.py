import os

# OpenMP threads that spin while they wait take the processor from the tests of a small machine.
# Read when the first library with OpenMP is loaded, and this module is imported before any.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
