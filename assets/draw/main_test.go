package main

import (
	"bytes"
	"encoding/binary"
	"image/png"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPicturesAreDrawnFromTheirSources(t *testing.T) {
	drawn, err := render(os.DirFS("../svg"))
	if err != nil {
		t.Fatal(err)
	}
	kept := os.DirFS("..")
	var names []string
	err = fs.WalkDir(kept, ".", func(name string, _ fs.DirEntry, err error) error {
		if ext := path.Ext(name); ext == ".png" || ext == ".ico" {
			names = append(names, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(drawn)), slices.Sorted(slices.Values(names))); diff != "" {
		t.Errorf("files differ (-drawn +kept); delete or run go generate ./assets:\n%s", diff)
	}
	for name, want := range drawn {
		if got, err := fs.ReadFile(kept, name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is not what its source draws (%v); run go generate ./assets", name, err)
		}
	}
}

func TestWindowsIconsHoldEverySize(t *testing.T) {
	names, err := filepath.Glob("../ico/*.ico")
	if err != nil || len(names) == 0 {
		t.Fatalf("no icons: %v", err)
	}
	for _, name := range append(names, "../app.ico") {
		t.Run(filepath.Base(name), func(t *testing.T) {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			var header struct{ Reserved, Kind, Count uint16 }
			in := bytes.NewReader(data)
			if err := binary.Read(in, binary.LittleEndian, &header); err != nil {
				t.Fatal(err)
			}
			if header.Reserved != 0 || header.Kind != 1 {
				t.Fatalf("header %+v is not an icon's", header)
			}
			var sizes []int
			for range header.Count {
				var entry struct {
					Width, Height, Palette, Reserved byte
					Planes, Bits                     uint16
					Len, Offset                      uint32
				}
				if err := binary.Read(in, binary.LittleEndian, &entry); err != nil {
					t.Fatal(err)
				}
				img, err := png.Decode(bytes.NewReader(data[entry.Offset : entry.Offset+entry.Len]))
				if err != nil {
					t.Fatal(err)
				}
				size := img.Bounds().Dx()
				if byte(size) != entry.Width || byte(size) != entry.Height || img.Bounds().Dy() != size {
					t.Errorf("entry says %d×%d, its picture is %v", entry.Width, entry.Height, img.Bounds())
				}
				sizes = append(sizes, size)
			}
			if diff := cmp.Diff(windowsSizes, sizes); diff != "" {
				t.Errorf("sizes (-want +got):\n%s", diff)
			}
		})
	}
}

// A template has no colours, so a state's picture may have one and white alone.
func TestStatesHaveOneColour(t *testing.T) {
	sources, err := fs.Glob(os.DirFS("../svg"), "*.svg")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		if name == "app.svg" {
			continue
		}
		svg, err := os.ReadFile("../svg/" + name)
		if err != nil {
			t.Fatal(err)
		}
		colours := map[string]bool{}
		for _, paint := range regexp.MustCompile(`(?:fill|stroke)="([^"]*)"`).FindAllSubmatch(svg, -1) {
			if colour := string(paint[1]); colour != "#ffffff" {
				colours[colour] = true
			}
		}
		if len(colours) != 1 {
			t.Errorf("%s: wants one colour and white, has %v", name, slices.Sorted(maps.Keys(colours)))
		}
	}
}

func TestRenderRefusesWhatItCannotDraw(t *testing.T) {
	for name, svg := range map[string]string{
		"not SVG": `<svg`,
		"text":    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><text x="1" y="9">!</text></svg>`,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := picture([]byte(svg), 16); err == nil {
				t.Error("drawn without a word")
			}
		})
	}
}
