package config

func (src Sources) configDir() (string, error) {
	return src.below("", "HOME", "Library", "Application Support")
}

func (src Sources) defaultStateDir() (string, error) { return src.configDir() }
