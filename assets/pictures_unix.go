//go:build unix && !darwin

package assets

import "embed"

const iconFolder, iconSuffix = "png/", ".png"

//go:embed png app.png
var pictures embed.FS
