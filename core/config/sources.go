package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/joho/godotenv"

	"github.com/distributedcompute/host-agent/core/secret"
)

// maxFileBytes bounds what is read of a configuration file.
const maxFileBytes = 1 << 20

// Sources say where settings come from.
type Sources struct {
	// File is the path of agent.yaml. Where it is "" the environment's DISTRIBUTED_AGENT_CONFIG
	// counts, then the default place, where the file may be absent.
	File    string
	Environ []string // as os.Environ gives it
	Flags   []Flag
}

// Flag is a setting given on the command line.
type Flag struct {
	Key   string // "backend.url"
	Name  string // "--backend"
	Value string
}

// setting is one value somebody wrote down.
type setting struct {
	key    key
	text   string
	place  string // begins an error: "agent.yaml:12: offer.cpu_cores"
	origin string // "agent.yaml:12"
	dir    string // relative paths start here; "": the working directory
}

func (s setting) resolve(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	abs, err := filepath.Abs(filepath.Join(s.dir, path))
	if err != nil {
		return path
	}
	return abs
}

// given is everything the sources say, in the order in which it is applied.
type given struct {
	settings   []setting
	problems   []error
	noStateDir error  // why agent.yaml may name a state directory that is not known
	file       string // the agent.yaml that was read
	apiKey     secret.String
	apiKeyFile string
}

func (src Sources) gather() (given, error) {
	var g given
	file, named, err := src.file()
	if err != nil {
		return g, err
	}
	content, err := readFile(file)
	switch {
	case err == nil:
		g.file = file
		g.readYAML(file, content)
	case errors.Is(err, fs.ErrNotExist) && !named:
	default:
		return g, fmt.Errorf("reading the configuration: %w", err)
	}
	if err := g.readDotEnv(filepath.Join(filepath.Dir(file), ".env")); err != nil {
		return g, err
	}
	g.readEnvironment(src.Environ)
	g.readFlags(src.Flags)
	return g, nil
}

// file gives the path of agent.yaml, and whether somebody asked for that very file.
func (src Sources) file() (path string, named bool, err error) {
	if path := cmp.Or(src.File, src.lookup(configName)); path != "" {
		return path, true, nil
	}
	path, err = src.DefaultFile()
	return path, false, err
}

func (src Sources) lookup(name string) string {
	for _, pair := range src.Environ {
		if n, value, _ := strings.Cut(pair, "="); n == name || runtime.GOOS == "windows" && strings.EqualFold(n, name) {
			return value
		}
	}
	return ""
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a file", path)
	}
	if info.Size() > maxFileBytes {
		return nil, fmt.Errorf("%s is larger than 1 MiB", path)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o002 != 0 { // there the mode says nothing
		return nil, fmt.Errorf("%s can be written by every user, who could have the host key sent elsewhere; run: chmod o-w '%s'", path, path)
	}
	content, err := os.ReadFile(path)
	return bytes.TrimPrefix(content, []byte(byteOrderMark)), err
}

// byteOrderMark is what editors on Windows begin a text file with.
const byteOrderMark = "\uFEFF"

// readDotEnv reads the .env beside agent.yaml. One in the working directory is not read: whoever
// owns that directory could send the host key elsewhere.
func (g *given) readDotEnv(path string) error {
	content, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading .env: %w", err)
	}
	values, err := godotenv.UnmarshalBytes(content)
	if err != nil {
		return fmt.Errorf("%s:%d: takes lines of the form NAME=value", path, badLine(content)) // the cause quotes it, maybe a secret
	}
	if key := values[apiKeyName]; key != "" {
		g.apiKey, g.apiKeyFile = secret.New(key), path
	}
	g.readNames(values, path+": ", filepath.Dir(path))
	return nil
}

// badLine is the number of the line that follows the longest good beginning of a .env file.
func badLine(content []byte) int {
	lines := bytes.SplitAfter(content, []byte("\n"))
	good := len(lines)
	for good > 0 {
		if _, err := godotenv.UnmarshalBytes(bytes.Join(lines[:good], nil)); err == nil {
			break
		}
		good--
	}
	return good + 1
}

func (g *given) readEnvironment(environ []string) {
	values := map[string]string{}
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if runtime.GOOS == "windows" {
			name = strings.ToUpper(name)
		}
		values[name] = value
	}
	if key := values[apiKeyName]; key != "" {
		g.apiKey, g.apiKeyFile = secret.New(key), ""
	}
	g.readNames(values, "", "")
}

// readNames takes the variables that name a key; other programs' are left alone.
func (g *given) readNames(values map[string]string, prefix, dir string) {
	for _, k := range keys {
		if value, ok := values[k.env()]; ok {
			place := prefix + k.env()
			g.settings = append(g.settings, setting{key: k, text: value, place: place, origin: place, dir: dir})
			delete(values, k.env())
		}
	}
	delete(values, configName)
	var unknown []string
	for name := range values {
		if strings.HasPrefix(name, envPrefix) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		g.problems = append(g.problems, fmt.Errorf("%s%s: no such setting; see config explain for all of them", prefix, name))
	}
}

func (g *given) readFlags(flags []Flag) {
	for _, f := range flags {
		k, ok := findKey(f.Key)
		if !ok {
			g.problems = append(g.problems, fmt.Errorf("%s: no setting %s", f.Name, f.Key))
			continue
		}
		g.settings = append(g.settings, setting{key: k, text: f.Value, place: f.Name, origin: "flag " + f.Name})
	}
}
