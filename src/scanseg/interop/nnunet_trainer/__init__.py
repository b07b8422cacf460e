"""Folder for nnU-Net's variable `nnUNet_extTrainer`: trainers that nnU-Net finds by name.

Only nnU-Net imports the modules in this folder. They need nnunetv2.
"""
