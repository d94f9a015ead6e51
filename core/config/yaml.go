package config

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// readYAML walks the file's syntax tree instead of decoding it into a struct: so each value is
// known with its line, exactly as it was written.
func (g *given) readYAML(path string, content []byte) {
	name := filepath.Base(path)
	file, err := parser.ParseBytes(content, 0)
	if err != nil {
		g.noStateDir = syntaxError(name, err)
		g.problems = append(g.problems, g.noStateDir)
		return
	}
	r := yamlReader{given: g, name: name, dir: filepath.Dir(path)}
	bodies := 0
	for _, doc := range file.Docs {
		if doc.Body == nil {
			continue
		}
		if bodies++; bodies > 1 {
			r.problem(doc.Body, "one document only, without a second '---'")
			return
		}
		r.section("", doc.Body)
	}
}

// syntaxError keeps the line and the message of a parser's error and drops its drawing of the source.
func syntaxError(name string, err error) error {
	var positioned interface {
		error
		GetMessage() string
		GetToken() *token.Token
	}
	if errors.As(err, &positioned) && positioned.GetToken() != nil {
		message := positioned.GetMessage()
		if strings.Contains(message, "'\t' that cannot start") {
			message = "a tab stands at the start of the line; indent with spaces"
		}
		return fmt.Errorf("%s:%d: not valid YAML: %s", name, positioned.GetToken().Position.Line, message)
	}
	return fmt.Errorf("%s: not valid YAML: %w", name, err)
}

type yamlReader struct {
	given *given
	name  string // as errors call the file
	dir   string
}

func (r yamlReader) problem(at ast.Node, format string, args ...any) {
	r.given.problems = append(r.given.problems, fmt.Errorf("%s:%d: %s", r.name, line(at), fmt.Sprintf(format, args...)))
}

func line(n ast.Node) int { return n.GetToken().Position.Line }

// section reads the entries below a prefix, "" or "offer.".
func (r yamlReader) section(prefix string, body ast.Node) {
	var entries []*ast.MappingValueNode
	switch body := body.(type) {
	case *ast.MappingNode:
		entries = body.Values
	case *ast.MappingValueNode:
		entries = []*ast.MappingValueNode{body}
	case *ast.NullNode: // a section with nothing in it
	default:
		r.problem(body, "%s: takes the keys %s", sectionName(prefix), strings.Join(within(prefix), ", "))
	}
	for _, entry := range entries {
		r.entry(prefix, entry)
	}
}

func (r yamlReader) entry(prefix string, entry *ast.MappingValueNode) {
	word, ok := scalar(entry.Key)
	ok = ok && !strings.Contains(word, ".") // else "offer.gpus:" could stand beside "gpus:" below "offer:"
	full := prefix + word
	if k, found := findKey(full); ok && found {
		r.value(k, entry)
		return
	}
	if ok && len(within(full+".")) > 0 {
		r.section(full+".", entry.Value)
		return
	}
	r.problem(entry.Key, "%s: no such key; %s takes %s", full, sectionName(prefix), strings.Join(within(prefix), ", "))
}

func sectionName(prefix string) string {
	if prefix == "" {
		return "the file"
	}
	return strings.TrimSuffix(prefix, ".")
}

func (r yamlReader) value(k key, entry *ast.MappingValueNode) {
	text, ok := scalar(entry.Value)
	if list, isList := entry.Value.(*ast.SequenceNode); isList && k.list {
		text, ok = joined(list)
	}
	origin := fmt.Sprintf("%s:%d", r.name, line(entry.Key))
	place := origin + ": " + k.name
	if !ok {
		problem := fmt.Errorf("%s: takes %s, got %s", place, k.takes, kind(entry.Value))
		r.given.problems = append(r.given.problems, problem)
		if k.name == stateDirKey {
			r.given.noStateDir = problem
		}
		return
	}
	r.given.settings = append(r.given.settings, setting{key: k, text: text, place: place, origin: origin, dir: r.dir})
}

// scalar gives a plain value as it was written. An absent one is none: whoever writes "gpus:" and
// nothing after it must not offer all of them.
func scalar(n ast.Node) (string, bool) {
	switch n := n.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return n.GetToken().Value, true
	}
	return "", false
}

// joined writes a list as the environment would, "0,1"; an empty one is "none".
func joined(list *ast.SequenceNode) (string, bool) {
	if len(list.Values) == 0 {
		return "none", true
	}
	parts := make([]string, len(list.Values))
	for i, n := range list.Values {
		part, ok := scalar(n)
		if !ok {
			return "", false
		}
		parts[i] = part
	}
	return strings.Join(parts, ","), true
}

func kind(n ast.Node) string {
	switch n.(type) {
	case *ast.NullNode:
		return "nothing"
	case *ast.SequenceNode:
		return "a list"
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a section"
	case *ast.AnchorNode, *ast.AliasNode:
		return "an anchor or alias"
	case *ast.TagNode:
		return "a tag"
	}
	return "something else"
}
