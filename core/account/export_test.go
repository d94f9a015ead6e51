package account

import "time"

// SetAgain changes the pace at which Run looks whether a new key was lost.
func (a *Account) SetAgain(pace time.Duration) { a.again = pace }
