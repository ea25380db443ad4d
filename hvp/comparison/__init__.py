"""The main job in numbers: the spectra of H, G and R side by side."""
