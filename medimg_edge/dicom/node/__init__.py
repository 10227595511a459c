"""The listening node: a DICOM storage SCP that answers what it receives. PS3.4 Annex B."""
