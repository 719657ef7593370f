"""Who a device is to its broker: keys, certificate requests, enrolment tokens, and the files that hold them."""
