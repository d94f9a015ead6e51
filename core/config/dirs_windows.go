package config

func (src Sources) configDir() (string, error) {
	return src.below("APPDATA", "USERPROFILE", "AppData", "Roaming")
}

// The state belongs to this machine, so it does not roam with the user's profile.
func (src Sources) defaultStateDir() (string, error) {
	return src.below("LOCALAPPDATA", "USERPROFILE", "AppData", "Local")
}
