"""The runtime class `gvisor` of the back end `native`: a kernel in user space for each machine."""
