"""Images: decoding, preprocessing, augmentation, datasets and the order of samples."""
