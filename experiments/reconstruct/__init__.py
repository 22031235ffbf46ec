"""What weight autoencoders keep of the networks of one zoo."""
