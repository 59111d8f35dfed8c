"""The two ears: their sides, and the comparison of one with the contralateral one."""
