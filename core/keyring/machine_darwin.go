package keyring

import "github.com/denisbrodbeck/machineid"

// machineID names this machine. It is confidential: only what is derived from it may leave the program.
func machineID() (string, error) { return machineid.ID() }
