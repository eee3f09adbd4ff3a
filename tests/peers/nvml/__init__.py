"""A GPU that is made up: `pynvml` and `nvidia-smi` for machines without one.

CUDA_STAND_IN names a folder where processes write what they hold, as in `tests/peers/libcuda.c`.
This folder comes first on PYTHONPATH and on PATH of what should see that GPU.
"""
