// Command draw renders the pictures in svg/ into the files that each system wants. It runs in the folder of
// package assets, by go generate; the agent does not hold it.
package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/srwiley/oksvg"
	"github.com/srwiley/rasterx"
)

// Sizes are in pixels, of a square.
const (
	// panelSize is three and two times the 16 and 24 pixels at which panels show icons: a picture drawn on
	// a grid of 16 stays sharp in both.
	panelSize    = 48
	templateSize = 32 // macOS shows 16 points: 32 pixels of a Retina screen
	appSize      = 256
)

// windowsSizes has the notification area's at 100, 125, 150 and 200 % (16, 20, 24, 32) and their doubles,
// since a program that asks for the default size gets the desktop's, twice as large, to be shrunk. 256 is
// for the large views of folders.
var windowsSizes = []int{16, 20, 24, 32, 40, 48, 64, 256}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "draw:", err)
		os.Exit(1)
	}
}

func run() error {
	files, err := render(os.DirFS("svg"))
	if err != nil {
		return err
	}
	for name, data := range files {
		if err := write(name, data); err != nil {
			return err
		}
	}
	return nil
}

func write(name string, data []byte) error {
	file := filepath.FromSlash(name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return fmt.Errorf("making a folder for %s: %w", name, err)
	}
	if err := os.WriteFile(file, data, 0o644); err != nil {
		return fmt.Errorf("writing a picture: %w", err)
	}
	return nil
}

// render draws every SVG of sources. It returns the files' contents by name, with slashes.
func render(sources fs.FS) (map[string][]byte, error) {
	names, err := fs.Glob(sources, "*.svg")
	if err != nil {
		return nil, fmt.Errorf("listing pictures: %w", err)
	}
	files := map[string][]byte{}
	for _, name := range names {
		svg, err := fs.ReadFile(sources, name)
		if err != nil {
			return nil, fmt.Errorf("reading a picture: %w", err)
		}
		if err := renderOne(strings.TrimSuffix(name, path.Ext(name)), svg, files); err != nil {
			return nil, fmt.Errorf("drawing %s: %w", name, err)
		}
	}
	return files, nil
}

func renderOne(name string, svg []byte, files map[string][]byte) error {
	ico, err := icon(svg, windowsSizes...)
	if err != nil {
		return err
	}
	if name == "app" {
		files["app.ico"] = ico
		files["app.png"], err = picture(svg, appSize)
		return err
	}
	files["ico/"+name+".ico"] = ico
	if files["png/"+name+".png"], err = picture(svg, panelSize); err != nil {
		return err
	}
	files["template/"+name+".png"], err = template(svg, templateSize)
	return err
}

func rasterize(svg []byte, size int) (*image.RGBA, error) {
	icon, err := oksvg.ReadIconStream(bytes.NewReader(svg), oksvg.StrictErrorMode)
	if err != nil {
		return nil, fmt.Errorf("parsing: %w", err)
	}
	icon.SetTarget(0, 0, float64(size), float64(size))
	img := image.NewRGBA(image.Rect(0, 0, size, size))
	icon.Draw(rasterx.NewDasher(size, size, rasterx.NewScannerGV(size, size, img, img.Bounds())), 1)
	return img, nil
}

func picture(svg []byte, size int) ([]byte, error) {
	img, err := rasterize(svg, size)
	if err != nil {
		return nil, err
	}
	return encode(img)
}

func encode(img image.Image) ([]byte, error) {
	var out bytes.Buffer
	if err := png.Encode(&out, img); err != nil {
		return nil, fmt.Errorf("encoding: %w", err)
	}
	return out.Bytes(), nil
}

// template draws svg in black and nothing, as macOS wants a picture to colour itself: what is white in the
// source becomes a hole.
func template(svg []byte, size int) ([]byte, error) {
	black, err := rasterize(regexp.MustCompile(`#[0-9a-f]{6}`).ReplaceAllFunc(svg, func(colour []byte) []byte {
		if string(colour) == "#ffffff" {
			return colour
		}
		return []byte("#000000")
	}), size)
	if err != nil {
		return nil, err
	}
	paper := image.NewGray(black.Bounds())
	draw.Draw(paper, paper.Bounds(), image.White, image.Point{}, draw.Src)
	draw.Draw(paper, paper.Bounds(), black, image.Point{}, draw.Over)
	ink := image.NewNRGBA(black.Bounds())
	for y := range size {
		for x := range size {
			ink.SetNRGBA(x, y, color.NRGBA{A: 255 - paper.GrayAt(x, y).Y})
		}
	}
	return encode(ink)
}

// icon packs svg at several sizes into a Windows icon of PNG entries, which Windows reads since Vista.
func icon(svg []byte, sizes ...int) ([]byte, error) {
	const headerLen, entryLen = 6, 16
	head := binary.LittleEndian.AppendUint16(nil, 0)
	head = binary.LittleEndian.AppendUint16(head, 1) // an icon
	head = binary.LittleEndian.AppendUint16(head, uint16(len(sizes)))
	var body []byte
	for _, size := range sizes {
		data, err := picture(svg, size)
		if err != nil {
			return nil, err
		}
		offset := headerLen + entryLen*len(sizes) + len(body)
		head = append(head, byte(size), byte(size), 0, 0) // 256 is written as 0; no palette
		head = binary.LittleEndian.AppendUint16(head, 1)  // planes
		head = binary.LittleEndian.AppendUint16(head, 32) // bits a pixel
		head = binary.LittleEndian.AppendUint32(head, uint32(len(data)))
		head = binary.LittleEndian.AppendUint32(head, uint32(offset))
		body = append(body, data...)
	}
	return append(head, body...), nil
}
