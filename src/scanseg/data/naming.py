"""Which files of a folder belong to one case: nnU-Net's naming `CASE_0000.ext`."""
