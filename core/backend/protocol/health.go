package protocol

import "time"

// LinkHealth is the state of the connection to the backend, as those who show it see it.
type LinkHealth struct {
	URL         string    `json:"url"`
	Connected   bool      `json:"connected"`
	Registered  bool      `json:"registered"` // the backend has answered register on this connection
	NeedsSignIn bool      `json:"needs_sign_in"`
	Replaced    bool      `json:"replaced,omitempty"` // another agent has signed on with this host's key
	Refused     string    `json:"refused,omitempty"`  // the backend's code for refusing this host: key_revoked, host_suspended, upgrade_required …; "" while it has not
	Problem     string    `json:"problem,omitempty"`  // one sentence: why there is no connection, or why the backend's answer to register is of no use
	Since       time.Time `json:"since,omitzero"`
	NextTry     time.Time `json:"next_try,omitzero"`
}
