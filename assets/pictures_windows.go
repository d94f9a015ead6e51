package assets

import "embed"

const iconFolder, iconSuffix = "ico/", ".ico"

//go:embed ico app.png
var pictures embed.FS
