"""Three model servers that read handwritten digits at three prices, and the demo on top of them."""
