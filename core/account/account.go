// Package account is this host's standing with the marketplace: whose host it is, the key by which it
// signs on, and how that key is got, exchanged and given back.
package account

import "time"

// Info is what may be shown of an account. It holds no secret.
type Info struct {
	SignedIn  bool       `json:"signed_in"`            // there is a host key
	Owner     string     `json:"owner,omitempty"`      // e-mail address of whoever signed in; "" where the key came another way
	NodeID    string     `json:"node_id,omitempty"`    // the node the key is for; "" where the key came another way
	KeyID     string     `json:"key_id,omitempty"`     // names the key without being it
	KeySource string     `json:"key_source,omitempty"` // where the key comes from, in words
	CanSignIn bool       `json:"can_sign_in"`          // the marketplace's sign-in is configured
	SigningIn *SigningIn `json:"signing_in,omitempty"` // null while no sign-in is under way
	// Problem says in one sentence why the last sign-in came to nothing; "" after another one has begun.
	Problem string `json:"problem,omitempty"`
}

// Method is how to sign in.
type Method string

// The methods of signing in. With none named the account chooses.
const (
	Browser Method = "browser" // on this machine, by a redirect to a loopback port
	Device  Method = "device"  // on any device, by a code
)

// SigningIn is a sign-in that waits for its person.
type SigningIn struct {
	Method    Method    `json:"method"`
	URL       string    `json:"url"`                 // to open in a browser
	UserCode  string    `json:"user_code,omitempty"` // to type or compare there; Device only
	ExpiresAt time.Time `json:"expires_at"`
}

// SignedOut says what became of a key that was given back.
type SignedOut struct {
	Revoked bool   `json:"revoked"`          // the marketplace has confirmed that the key is void
	Why     string `json:"why,omitempty"`    // one sentence: why it has not
	Source  string `json:"source,omitempty"` // a place from which the key was not removed, because it is not ours to clear; "" where it is gone
}
