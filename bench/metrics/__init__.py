"""From images to numbers: quantiser, extractors, moments, Fréchet distances, statistics.

images       float in [-1, 1] -> uint8; the reader of npz files
image_files  somebody's images: a folder, a tar or an npz
protocol     what a feature extractor is
extractor    the small CIFAR-10 network behind `fd_cifar` (its layers: cifar_net)
inception    the Inception-v3 behind `fid`
moments      features -> count, mean, scatter, which add up over chunks
frechet      two moments -> distance
reference    the statistics that samples are compared with, and their birth certificate
             (kept_features: the features themselves, beside the statistics)
registry     the metrics by name; opening what they need; scoring a cell
torchmetric  the same distance as a torchmetrics `Metric`
"""
