//go:build linux

package main

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/png"
	"os"
	"path/filepath"
	"strings"
)

// margin is what is left of the panel beside a menu, in pixels.
const margin = 24

// album is the folder of pictures with its index.
type album struct {
	dir      string
	chapters []chapter
}

// chapter is a state of the host.
type chapter struct {
	title, words string
	pictures     []picture
}

type picture struct{ name, words string }

// uncovered makes what is not covered by anything transparent.
func uncovered(sight image.Image) *image.NRGBA {
	out := image.NewNRGBA(sight.Bounds())
	draw.Draw(out, out.Rect, sight, sight.Bounds().Min, draw.Src)
	for i := 0; i < len(out.Pix); i += 4 {
		if out.Pix[i] == 0xff && out.Pix[i+1] == 0 && out.Pix[i+2] == 0xfe {
			clear(out.Pix[i : i+4])
		}
	}
	return out
}

// above is what there is above the panel.
func above(sight *image.NRGBA) image.Rectangle {
	var all image.Rectangle
	for y := range panelTop {
		for x := range width {
			if sight.Pix[sight.PixOffset(x, y)+3] != 0 {
				all = all.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return all
}

func somethingAbove(sight *image.NRGBA) bool { return !above(sight).Empty() }
func nothingAbove(sight *image.NRGBA) bool   { return above(sight).Empty() }

// different counts the pixels that are.
func different(a, b *image.NRGBA) (n int) {
	for i := 0; i < len(a.Pix); i += 4 {
		if !bytes.Equal(a.Pix[i:i+4], b.Pix[i:i+4]) {
			n++
		}
	}
	return n
}

// begin opens the chapter that the next pictures are of.
func (a *album) begin(title, words string) {
	a.chapters = append(a.chapters, chapter{title: title, words: words})
}

// put keeps what is on a screen: the panel below what there is above it.
func (a *album) put(name, words string, sight *image.NRGBA) error {
	last := &a.chapters[len(a.chapters)-1]
	last.pictures = append(last.pictures, picture{name, last.title + ": the " + words})
	cut := above(sight)
	return a.keep(name, sight.SubImage(image.Rect(cut.Min.X-margin, cut.Min.Y, width, height)))
}

// keep writes a picture.
func (a *album) keep(name string, picture image.Image) error {
	var data bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&data, picture); err != nil {
		return fmt.Errorf("drawing %s: %w", name, err)
	}
	if err := os.WriteFile(filepath.Join(a.dir, name+".png"), data.Bytes(), 0o644); err != nil {
		return fmt.Errorf("keeping a picture: %w", err)
	}
	return nil
}

// strip puts the icons of one panel beside each other, and below them those of the next, at twice
// their size.
func strip(rows ...[]*image.NRGBA) *image.NRGBA {
	const side = 2 * panelHeight
	out := image.NewNRGBA(image.Rect(0, 0, side*len(rows[0]), side*len(rows)))
	for y := range out.Rect.Dy() {
		for x := range out.Rect.Dx() {
			icon := rows[y/side][x/side]
			out.SetNRGBA(x, y, icon.NRGBAAt(icon.Rect.Min.X+x%side/2, icon.Rect.Min.Y+y%side/2))
		}
	}
	return out
}

// iconOf is the icon in a picture of the screen.
func iconOf(sight *image.NRGBA) *image.NRGBA {
	return sight.SubImage(image.Rect(width-panelHeight, height-panelHeight, width, height)).(*image.NRGBA)
}

// light reports whether the panel is.
func light(sight *image.NRGBA) bool {
	return color.GrayModel.Convert(sight.At(panelHeight, iconY)).(color.Gray).Y > 0x80
}

// index writes the page that shows the pictures.
func (a *album) index(icons []string) error {
	var b strings.Builder
	fmt.Fprintf(&b, `# The icon and its menu

What the icon in the panel shows and what a click on it opens, state by state. `+"`make screenshots`"+` takes these
pictures: the agent, the Docker Engine, the rental and the panel (Xfce's) are real, the marketplace is the sandbox, and the
graphics cards and a month's earnings are made up.

![The icons of all states, on a dark and on a light panel](icons.png)

From left to right: %s.
`, strings.Join(icons, ", "))
	for _, c := range a.chapters {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n", c.title, c.words)
		for _, p := range c.pictures {
			fmt.Fprintf(&b, "\n![%s](%s.png)\n", p.words, p.name)
		}
	}
	if err := os.WriteFile(filepath.Join(a.dir, "README.md"), []byte(b.String()), 0o644); err != nil {
		return fmt.Errorf("writing the pictures' index: %w", err)
	}
	return nil
}
