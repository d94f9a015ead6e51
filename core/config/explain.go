package config

import "cmp"

// Setting is one key as it stands.
type Setting struct {
	Key    string `json:"key"`
	Value  string `json:"value"`
	Source string `json:"source"` // "agent.yaml:12", the name of a variable, "flag --gpus", "default"
	Env    string `json:"env"`    // the variable that sets it
}

// Explain lists every setting with its value and where it came from. Secrets show as "[redacted]".
func (c *Config) Explain() []Setting {
	settings := make([]Setting, 0, len(keys)+1)
	for _, k := range keys {
		settings = append(settings, Setting{
			Key:    k.name,
			Value:  k.bind(c).show(),
			Source: cmp.Or(c.origins[k.name], "default"),
			Env:    k.env(),
		})
	}
	return append(settings, Setting{
		Key:    apiKeyName,
		Value:  c.APIKey.String(),
		Source: cmp.Or(c.origins[apiKeyName], "default"),
		Env:    apiKeyName,
	})
}
