package core_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/distributedcompute/host-agent"

// layer says which of our own packages a package may import, and why it stops there. Every package
// but the open ones needs a row: a new package asks for a decision.
type layer struct {
	may    []string
	reason string
}

var layers = map[string]layer{
	"core":                   {nil, "it is a map, not code"},
	"core/secret":            {nil, "everything may hold a secret, so it may need nothing"},
	"core/durable":           {nil, "replacing a file needs to know nothing of what is in it"},
	"core/backend/protocol":  {[]string{"core/secret"}, "the wire contract is shared with backends and knows no agent"},
	"core/rental":            {[]string{"core/durable", "core/secret"}, "a rental's life knows neither Docker nor frp nor the wire"},
	"core/rental/rentaltest": {[]string{"core/rental"}, "the seams' conformance suites know the seams alone"},
	"core/shield":            {nil, "packet filter rules know bridges and addresses, not rentals"},
	"core/lending":           {[]string{"core/hardware", "core/rental", "core/durable"}, "lending GPUs needs a machine and rentals, and nobody who ordered them"},
	"core/hardware":          {nil, "reading a machine needs no marketplace"},
	"core/audit":             {[]string{"core/durable"}, "a record knows nothing of what it records"},
	"core/preflight":         {nil, "judging versions needs a machine and a table"},
	"core/keyring":           {[]string{"core/durable", "core/secret"}, "a key at rest needs no agent"},
	"core/signin":            {[]string{"core/secret"}, "signing in gives a key and knows nothing of where it is kept"},
	"core/account":           {[]string{"core/signin", "core/keyring", "core/durable", "core/secret"}, "whose host this is needs no agent to be known"},
	"core/desktop":           {[]string{"core/durable"}, "the user's desktop serves whoever asks"},
	"core/config":            {[]string{"core/secret"}, "settings are read before there is an agent"},
	"core/docker":            {[]string{"core/rental", "core/durable", "core/secret", "core/shield"}, "an engine serves rentals, whoever ordered them"},
	"core/tunnel":            {[]string{"core/rental", "core/durable", "core/secret"}, "a relay serves rentals, whoever ordered them"},
	"core/backend":           {[]string{"core/backend/protocol", "core/secret"}, "the link carries messages and decides nothing"},
	"core/agent":             {[]string{"core/account", "core/rental", "core/backend/protocol", "core/hardware", "core/preflight", "core/durable", "core/secret"}, "decisions are made on words, not on SDKs"},
	"core/control":           {[]string{"core/account", "core/agent", "core/rental", "core/hardware"}, "the socket shows and asks; it owns nothing"},
	"assets":                 {nil, "pictures know nothing"},
	"assets/draw":            {nil, "drawing them needs their sources alone"},
	"tray":                   {[]string{"assets", "core/account", "core/agent", "core/backend/protocol", "core/rental"}, "the screen shows what the agent says; it asks, and owns nothing"},
	"app/shield":             {[]string{"core/shield"}, "what may change the packet filter does nothing else"},
	"app":                    {[]string{"core/...", "tray", "assets"}, "the one place where parts are joined; the sandbox is another program"},
	"sandbox/...":            {[]string{"core/backend/protocol", "core/config", "core/secret", "sandbox/..."}, "the sandbox stands for the other side of every wire"},
}

// homes: each foreign library is reached from its home only, tests included.
var homes = map[string][]string{
	"github.com/docker/docker":               {"core/docker"},
	"github.com/docker/go-connections":       {"core/docker"},
	"github.com/containerd/errdefs":          {"core/docker"},
	"github.com/fatedier/frp":                {"core/tunnel"},
	"github.com/gorilla/websocket":           {"core/backend", "sandbox/backend"},
	"github.com/NVIDIA/go-nvml":              {"core/hardware"},
	"github.com/shirou/gopsutil":             {"core/hardware"},
	"github.com/showwin/speedtest-go":        {"core/hardware"},
	"github.com/godbus/dbus":                 {"tray", "core/desktop", "core/keyring", "sandbox/trayhost", "sandbox/screenshots"},
	"github.com/zalando/go-keyring":          {"core/keyring"},
	"github.com/emersion/go-autostart":       {"core/desktop"},
	"github.com/pkg/browser":                 {"core/desktop"},
	"fyne.io/systray":                        {"tray"},
	"github.com/atotto/clipboard":            {"core/desktop"},
	"github.com/gen2brain/beeep":             {"core/desktop"},
	"github.com/coreos/go-oidc":              {"core/signin"},
	"golang.org/x/oauth2":                    {"core/signin"},
	"github.com/zitadel/oidc":                {"sandbox/identity"},
	"github.com/shopspring/decimal":          {"sandbox/backend"},
	"github.com/srwiley/oksvg":               {"assets/draw"},
	"github.com/srwiley/rasterx":             {"assets/draw"},
	"github.com/chromedp/chromedp":           {"sandbox/backend"},
	"filippo.io/age":                         {"core/keyring"},
	"gopkg.in/natefinch/lumberjack.v2":       {"app"},
	"github.com/spf13/cobra":                 {"app", "sandbox"},
	"github.com/google/go-containerregistry": {"sandbox/...", "core/docker"},
	"github.com/Microsoft/go-winio":          {"core/control"},
	"github.com/google/nftables":             {"core/shield"},
	"github.com/mdlayher/netlink":            {"core/shield"},
	"github.com/gofrs/flock":                 {"core/control"},
}

// pkg is one package as its files tell, whatever their build tags.
type pkg struct {
	dir     string
	imports map[string][]string // import path → files; tests left out
	tests   map[string][]string
	docs    []string // files with a package comment
	names   []string // exported type names
}

func TestImportRules(t *testing.T) {
	for dir, p := range packages(t) {
		rule, ok := ruleFor(dir)
		if !ok {
			t.Errorf("%s: has no row in the import rules; decide what it may import", dir)
			continue
		}
		for imported, files := range p.imports {
			own, isOwn := strings.CutPrefix(imported, module+"/")
			if isOwn && !matchesAny(own, rule.may) {
				t.Errorf("%s imports %s (%s): not allowed, because %s", dir, own, strings.Join(files, ", "), rule.reason)
			}
		}
		for imported := range p.tests {
			if imported == module+"/app" {
				t.Errorf("%s: a test imports app; drive the program instead", dir)
			}
		}
	}
}

func TestForeignLibrariesStayAtHome(t *testing.T) {
	for dir, p := range packages(t) {
		for _, imports := range []map[string][]string{p.imports, p.tests} {
			for imported, files := range imports {
				for library, home := range homes {
					if imported != library && !strings.HasPrefix(imported, library+"/") {
						continue
					}
					if !matchesAny(dir, home) {
						t.Errorf("%s imports %s (%s): its home is %s", dir, imported, strings.Join(files, ", "), strings.Join(home, ", "))
					}
				}
			}
		}
	}
}

func TestShippedProgramHoldsNoSandbox(t *testing.T) {
	all := packages(t)
	seen := map[string]bool{}
	var visit func(dir string, trail []string)
	visit = func(dir string, trail []string) {
		if seen[dir] {
			return
		}
		seen[dir] = true
		trail = append(trail, dir)
		for imported := range all[dir].imports {
			if strings.Contains(imported, "fatedier/frp/server") {
				t.Errorf("the agent reaches frp's server: %s → %s", strings.Join(trail, " → "), imported)
			}
			if own, ok := strings.CutPrefix(imported, module+"/"); ok {
				if strings.HasPrefix(own, "sandbox") {
					t.Errorf("the agent reaches the sandbox: %s → %s", strings.Join(trail, " → "), own)
				}
				if _, ok := all[own]; ok {
					visit(own, trail)
				}
			}
		}
	}
	visit("app", nil)
}

func TestEveryPackageHasOneComment(t *testing.T) {
	for dir, p := range packages(t) {
		if len(p.docs) != 1 {
			t.Errorf("%s: wants its package comment in exactly one file, has it in %v", dir, p.docs)
		}
	}
}

func TestNames(t *testing.T) {
	empty := []string{"util", "utils", "common", "helper", "helpers", "manager", "service", "types", "models"}
	for dir, p := range packages(t) {
		if slices.Contains(empty, path.Base(dir)) {
			t.Errorf("%s: a package is named for what it holds", dir)
		}
		for _, name := range p.names {
			for _, word := range []string{"Manager", "Helper", "Util"} {
				if strings.Contains(name, word) {
					t.Errorf("%s.%s: say what it is; %q says nothing", dir, name, word)
				}
			}
		}
	}
}

func ruleFor(dir string) (layer, bool) {
	if rule, ok := layers[dir]; ok {
		return rule, true
	}
	for pattern, rule := range layers {
		if matches(dir, pattern) {
			return rule, true
		}
	}
	return layer{}, false
}

func matchesAny(dir string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(dir, p) })
}

// matches reports whether pattern names dir; "x/..." names x and all below it.
func matches(dir, pattern string) bool {
	if root, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == root || strings.HasPrefix(dir, root+"/")
	}
	return dir == pattern
}

// packages reads every Go file of the module, so that rules hold for all systems and build tags.
func packages(t *testing.T) map[string]*pkg {
	t.Helper()
	root := ".."
	all := map[string]*pkg{}
	err := filepath.WalkDir(root, func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, file)
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if name := entry.Name(); rel != "." && (strings.HasPrefix(name, ".") || name == "testdata" || name == "build") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") {
			return nil
		}
		dir := filepath.ToSlash(filepath.Dir(rel))
		if all[dir] == nil {
			all[dir] = &pkg{dir: dir, imports: map[string][]string{}, tests: map[string][]string{}}
		}
		return all[dir].read(file)
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (p *pkg) read(file string) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ParseComments)
	if err != nil {
		return fmt.Errorf("parsing %s: %w", file, err)
	}
	name := filepath.Base(file)
	into := p.imports
	if strings.HasSuffix(name, "_test.go") {
		into = p.tests
	} else {
		if parsed.Doc != nil {
			p.docs = append(p.docs, name)
		}
		for _, decl := range parsed.Decls {
			if gen, ok := decl.(*ast.GenDecl); ok {
				for _, spec := range gen.Specs {
					if named, ok := spec.(*ast.TypeSpec); ok {
						p.names = append(p.names, named.Name.Name)
					}
				}
			}
		}
	}
	for _, spec := range parsed.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("reading imports of %s: %w", file, err)
		}
		into[imported] = append(into[imported], name)
	}
	return nil
}
