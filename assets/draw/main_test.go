package main

import (
	"bytes"
	"encoding/binary"
	"image"
	"image/draw"
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
		got, err := fs.ReadFile(kept, name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) && !alike(t, got, want) {
			t.Errorf("%s is not what its source draws; run go generate ./assets", name)
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
			var sizes []int
			for _, img := range decode(t, data) {
				sizes = append(sizes, img.Bounds().Dx())
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

// alike forgives what differs between machines that draw the same: processors that multiply and add in one
// step round otherwise, and the next Go may compress otherwise.
func alike(t *testing.T, a, b []byte) bool {
	t.Helper()
	const levels = 2
	p, q := decode(t, a), decode(t, b)
	return slices.EqualFunc(p, q, func(p, q *image.RGBA) bool {
		return p.Rect == q.Rect && slices.EqualFunc(p.Pix, q.Pix, func(a, b byte) bool {
			return max(a, b)-min(a, b) <= levels
		})
	})
}

// decode reads a PNG, or every entry of an icon.
func decode(t *testing.T, data []byte) []*image.RGBA {
	t.Helper()
	if bytes.HasPrefix(data, []byte("\x89PNG")) {
		img, err := png.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		out := image.NewRGBA(img.Bounds())
		draw.Draw(out, out.Rect, img, image.Point{}, draw.Src)
		return []*image.RGBA{out}
	}
	var header struct{ Reserved, Kind, Count uint16 }
	in := bytes.NewReader(data)
	if err := binary.Read(in, binary.LittleEndian, &header); err != nil {
		t.Fatal(err)
	}
	if header.Reserved != 0 || header.Kind != 1 {
		t.Fatalf("header %+v is not an icon's", header)
	}
	var all []*image.RGBA
	for range header.Count {
		var entry struct {
			Width, Height, Palette, Reserved byte
			Planes, Bits                     uint16
			Len, Offset                      uint32
		}
		if err := binary.Read(in, binary.LittleEndian, &entry); err != nil {
			t.Fatal(err)
		}
		img := decode(t, data[entry.Offset:entry.Offset+entry.Len])[0]
		if size := img.Rect.Size(); byte(size.X) != entry.Width || byte(size.Y) != entry.Height {
			t.Errorf("entry says %d×%d, its picture is %v", entry.Width, entry.Height, size)
		}
		all = append(all, img)
	}
	return all
}
