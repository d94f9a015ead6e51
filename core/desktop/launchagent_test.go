package desktop

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// As go-autostart writes it, which is the one that reads it on macOS too.
func TestLaunchAgentArguments(t *testing.T) {
	command := []string{"/Applications/R&D <beta>/distributed-agent", "tray", `--config=it's "here"`, ""}
	text := `<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
  <dict>
    <key>Label</key>
    <string>io.distributedcompute.Agent</string>
    <key>ProgramArguments</key>
      <array>
`
	for _, arg := range command {
		text += "        <string>" + escapeXML(arg) + "</string>\n"
	}
	text += `      </array>
    <key>RunAtLoad</key>
    <true/>
    <key>WatchPaths</key>
      <array>
        <string>/another</string>
      </array>
  </dict>
</plist>`
	if diff := cmp.Diff(command, arguments([]byte(text))); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	for _, broken := range []string{"", "bplist00", text[:300], text[:len(text)-10], "<plist><dict><key>ProgramArguments</key><array><string>a<"} {
		if got := arguments([]byte(broken)); got != nil {
			t.Errorf("%q: got %q", broken, got)
		}
	}
}
