// Package desktop is what the agent does on its user's desktop: it starts with the session, opens pages
// and files, shows notifications, and fills the clipboard. It knows nothing of the agent.
//
// Everything here is for the user whose desktop it is. Where there is none, or it is another's, the
// errors say so in one sentence, and the caller shows what it has by other means.
package desktop

import "errors"

// ErrRoot says that the program runs as root, who has no desktop here: a browser must not run as root,
// and what starts with root's session starts with nobody's.
var ErrRoot = errors.New("the agent runs as root, not as the user whose desktop this is")
