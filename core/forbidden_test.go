package core_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// neverCalled are methods of Docker's client by which something of the host is brought into a running container or something of
// it out: the engine, as root, then works in a file system and among processes that a renter has shaped, which is
// how runtimes have been taken over. What a rental says is read from its log and its ports alone. To build images is as bad: it
// runs what a renter could have written.
var neverCalled = []string{
	"ContainerExecCreate", "ContainerExecStart", "ContainerExecAttach", "ContainerExecInspect", "ContainerExecResize",
	"CopyToContainer", "CopyFromContainer", "ContainerStatPath", "ContainerAttach", "ContainerExport", "ContainerCommit",
	"ContainerTop", "ContainerDiff", "ContainerUpdate", "ContainerResize", "CheckpointCreate", "ImageBuild", "BuildCancel",
	"PluginInstall", "PluginEnable", "SwarmInit", "ServiceCreate",
}

// exceptions are calls that concern a container of the agent's own, with nothing of a renter's in it: file, method, reason.
var exceptions = map[[2]string]string{
	{"../core/docker/quota.go", "CopyToContainer"}: "the storage is tried with a container that is never started, of an image made on the spot",
}

func TestNobodyEntersARental(t *testing.T) {
	looked, met := 0, make(map[[2]string]bool)
	for _, top := range []string{"../core", "../app", "../tray", "../assets"} {
		err := filepath.WalkDir(top, func(file string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
				return err
			}
			looked++
			files := token.NewFileSet()
			parsed, err := parser.ParseFile(files, file, nil, 0)
			if err != nil {
				return err
			}
			for _, entry := range entries(parsed) {
				exception := [2]string{filepath.ToSlash(file), entry.Name}
				if exceptions[exception] == "" {
					t.Errorf("%s: %s enters a rental, copies or builds one", files.Position(entry.Pos()), entry.Name)
				}
				met[exception] = true
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if looked < 100 {
		t.Errorf("only %d files were looked at", looked)
	}
	for exception := range exceptions {
		if !met[exception] {
			t.Errorf("%v is an exception that nobody needs any more", exception)
		}
	}
}

// entries are the names of forbidden methods: called, kept for later, or asked for in an interface.
func entries(parsed *ast.File) (found []*ast.Ident) {
	ast.Inspect(parsed, func(node ast.Node) bool {
		if name, ok := node.(*ast.Ident); ok && forbiddenCall(name.Name) {
			found = append(found, name)
		}
		return true
	})
	return found
}

func forbiddenCall(name string) bool {
	return slices.Contains(neverCalled, name) ||
		strings.HasPrefix(name, "ContainerExec") || strings.HasPrefix(name, "ContainerAttach")
}

func TestEntriesAreSeen(t *testing.T) {
	const code = `package p
type narrow interface { ContainerAttach() }
func f(c client) {
	c.ContainerLogs(); c.api().ContainerExecCreate(1)
	later := c.CopyToContainer
	_ = later
	text := "ContainerExport"
	_ = text // ImageBuild
}`
	parsed, err := parser.ParseFile(token.NewFileSet(), "p.go", code, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if found := entries(parsed); len(found) != 3 {
		t.Errorf("%d entries seen of 3", len(found))
	}
}
