package keyring

// machineID is not asked for here: Windows itself binds the file to machine and user.
func machineID() (string, error) { return "", nil }
