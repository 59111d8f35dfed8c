"""The operations of the registration on the CPU: compiled loops on all cores."""
