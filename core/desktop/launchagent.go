package desktop

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
)

// escapeXML writes text as it stands in XML.
func escapeXML(text string) string {
	var b strings.Builder
	xml.EscapeText(&b, []byte(text)) // a strings.Builder takes everything
	return b.String()
}

// arguments reads the ProgramArguments of a LaunchAgent, nil where there are none or it is broken.
func arguments(plist []byte) []string {
	var (
		found  []string
		key    string
		inside bool // of the array
	)
	decoder := xml.NewDecoder(bytes.NewReader(plist))
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			return nil
		}
		switch element := token.(type) {
		case xml.StartElement:
			switch element.Name.Local {
			case "array":
				inside = key == "ProgramArguments"
			case "key", "string":
				var text string
				if decoder.DecodeElement(&text, &element) != nil {
					return nil
				}
				if element.Name.Local == "key" {
					key = strings.TrimSpace(text)
				} else if inside {
					found = append(found, text)
				}
			}
		case xml.EndElement:
			if element.Name.Local == "array" {
				inside = false
			}
		}
	}
}
