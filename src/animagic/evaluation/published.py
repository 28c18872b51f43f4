"""What others published: for the TikTok videos, to stand beside a comparison of videos, and for talking people.

No copy of MagicAnimate's own table (arXiv 2311.16498, Table 1) was at hand: its row is the one that Champ quotes
(arXiv 2403.14781v2, Table 1; Animate-X, arXiv 2410.10306, Table 7, has the same). The other rows are from DisCo
(arXiv 2307.00040, Table 1), whose code and test videos MagicAnimate used. DisCo's PSNR is a true one. Nothing could be
looked up for the TED-talks.
"""

from __future__ import annotations

PUBLISHED: dict[str, dict[str, float]] = {
    "FOMM": {
        "L1 as published": 3.61e-4, "PSNR": 17.26, "SSIM": 0.648, "LPIPS (VGG)": 0.335, "FID-VID": 90.09, "FVD": 405.22,
    },
    "MRAA": {
        "L1 as published": 3.21e-4, "PSNR": 18.14, "SSIM": 0.672, "LPIPS (VGG)": 0.296, "FID-VID": 66.36, "FVD": 284.82,
    },
    "TPS": {
        "L1 as published": 3.23e-4, "PSNR": 18.32, "SSIM": 0.673, "LPIPS (VGG)": 0.299, "FID-VID": 72.55, "FVD": 306.17,
    },
    "DreamPose": {
        "L1 as published": 6.88e-4, "PSNR": 12.82, "SSIM": 0.511, "LPIPS (VGG)": 0.442, "FID-VID": 78.77, "FVD": 551.02,
    },
    "DisCo": {
        "L1 as published": 3.78e-4, "PSNR": 16.55, "SSIM": 0.668, "LPIPS (VGG)": 0.292, "FID-VID": 59.90, "FVD": 292.80,
    },
    "MagicAnimate": {
        "L1 as published": 3.13e-4, "PSNR as published": 29.16, "SSIM": 0.714, "LPIPS (VGG)": 0.239, "FID-VID": 21.75,
        "FVD": 179.07,
    },
}  # fmt: skip
"""Method -> measure -> its mean. FOMM, MRAA and TPS get the true video as their driving video, the others its poses."""

TALKING = (
    "Published: MagicInfinite (arXiv 2503.05978) makes 10 s of 540x540 in 10 s, of 720x720 in 30 s, on 8 H100; the "
    "table of its own benchmark could not be looked up, and the benchmark is not public.\n"
    "For the scale of SyncNet's numbers, on real faces (HDTF), which do not compare with drawn ones: OmniAvatar (arXiv "
    "2506.18866, as quoted by cognaptus.com) has LSE-C 7.62 and LSE-D 8.14, with FID 37.3 and FVD 382; SyncNet's own "
    "example video has LSE-C 10.021 and LSE-D 5.353 (github.com/joonson/syncnet_python)."
)
"""What was published of talking people, in words: the numbers are few, and of other videos."""
