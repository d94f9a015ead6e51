package config

import (
	"errors"
	"path/filepath"
)

const program = "distributed-agent" // names our directory below the system's ones

var errNoHome = errors.New("finding the home directory: no variable names it; set HOME, or give --state-dir and --config")

// DefaultFile is where agent.yaml is looked for when nobody names it.
func (src Sources) DefaultFile() (string, error) {
	dir, err := src.configDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "agent.yaml"), nil
}

// below joins our directory to the absolute path in a variable, or to a folder of the home directory.
func (src Sources) below(variable, homeVariable string, folders ...string) (string, error) {
	if base := src.lookup(variable); variable != "" && filepath.IsAbs(base) {
		return filepath.Join(base, program), nil
	}
	home := src.lookup(homeVariable)
	if !filepath.IsAbs(home) {
		return "", errNoHome
	}
	return filepath.Join(append(append([]string{home}, folders...), program)...), nil
}
