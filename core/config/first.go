package config

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const firstHeader = "# Settings of the DistributedCompute host agent. agent.yaml.example documents every key.\n"

// WriteFirst writes the settings of the flags into an agent.yaml, for its owner alone, and returns
// its path. Where there is a file already it leaves that alone and returns "".
func (src Sources) WriteFirst() (path string, err error) {
	var g given
	g.readFlags(src.Flags)
	text, err := g.yaml()
	if err != nil {
		return "", err
	}
	if path, _, err = src.file(); err != nil {
		return "", err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("making the configuration directory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("writing agent.yaml: %w", err)
	}
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Close()); err != nil {
		return "", fmt.Errorf("writing agent.yaml: %w", err)
	}
	return path, nil
}

// yaml writes the settings, once they are checked, in the order of the table.
func (g given) yaml() (string, error) {
	c, problems := g.config()
	if err := errors.Join(problems...); err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteString(firstHeader)
	current := ""
	for _, k := range keys {
		if c.origins[k.name] == "" {
			continue
		}
		section, name, nested := strings.Cut(k.name, ".")
		if !nested {
			section, name = "", k.name
		}
		if section != current && nested {
			b.WriteString(section + ":\n")
		}
		current = section
		if nested {
			b.WriteString("  ")
		}
		b.WriteString(name + ": " + strconv.Quote(k.bind(c).show()) + "\n")
	}
	return b.String(), nil
}
