"""The hypernetwork: blocks, running moments and the MEND editor built of them."""
