//go:build linux || freebsd || openbsd || netbsd

package tray

import (
	"bufio"
	"image"
	"image/color"
	"image/png"
	"io"
	"sync"
)

// Systray hands a panel the low byte of each 16-bit colour, premultiplied by its opacity, where the
// panel wants 8-bit colours as they are. That comes to the same where a pixel is opaque or clear and to
// noise at every smooth edge. It decodes whatever format the program knows; this one gives colours whose
// low byte is the right one.

const straightMark = "straight"

var registerStraight = sync.OnceFunc(func() {
	image.RegisterFormat(straightMark, straightMark, func(r io.Reader) (image.Image, error) {
		picture, err := png.Decode(unmarked(r))
		return straightened{picture}, err
	}, func(r io.Reader) (image.Config, error) { return png.DecodeConfig(unmarked(r)) })
})

// straight marks a PNG as one of that format.
func straight(png []byte) []byte { return append([]byte(straightMark), png...) }

func unmarked(r io.Reader) io.Reader {
	b := bufio.NewReader(r)
	b.Discard(len(straightMark)) // what is too short fails to decode
	return b
}

type straightened struct{ image.Image }

func (s straightened) At(x, y int) color.Color {
	low := s.Bounds().Min // systray counts from 0, whatever the bounds
	return pixel(color.NRGBAModel.Convert(s.Image.At(low.X+x, low.Y+y)).(color.NRGBA))
}

// pixel breaks the rule of color.Color, which premultiplies, on purpose.
type pixel color.NRGBA

func (p pixel) RGBA() (r, g, b, a uint32) {
	return uint32(p.R) * 0x101, uint32(p.G) * 0x101, uint32(p.B) * 0x101, uint32(p.A) * 0x101
}
