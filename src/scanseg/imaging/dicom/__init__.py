"""DICOM series as images, and DICOM Segmentations.

A path names a series: its folder, its zip file, or `FOLDER/UID` and `FILE.zip/UID` if these hold several series.
pydicom reads series (extra `dicom`), and highdicom writes segmentations. Both are imported when a file is read or
written.
"""
