package config

import "os"

// The administrator's agent is a system's service and keeps to the system's directories.

func (src Sources) configDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/etc/" + program, nil
	}
	return src.below("XDG_CONFIG_HOME", "HOME", ".config")
}

func (src Sources) defaultStateDir() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/" + program, nil
	}
	return src.below("XDG_STATE_HOME", "HOME", ".local", "state")
}
