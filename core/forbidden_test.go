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

func TestNobodyEntersARental(t *testing.T) {
	looked := 0
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
			for _, place := range entries(parsed) {
				t.Errorf("%s: a rental is entered, built or copied", files.Position(place))
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
}

// entries are the places where a forbidden method is named: called, kept for later, or asked for in an interface.
func entries(parsed *ast.File) (places []token.Pos) {
	ast.Inspect(parsed, func(node ast.Node) bool {
		if name, ok := node.(*ast.Ident); ok && forbiddenCall(name.Name) {
			places = append(places, name.Pos())
		}
		return true
	})
	return places
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
	if places := entries(parsed); len(places) != 3 {
		t.Errorf("%d places seen of 3", len(places))
	}
}
