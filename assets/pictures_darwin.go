package assets

import "embed"

const iconFolder, iconSuffix = "png/", ".png"

//go:embed png template app.png
var pictures embed.FS
