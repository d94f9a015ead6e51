// Package lending hands this host's GPUs to rentals and takes them back.
//
// A [Desk] notes how a GPU is before a rental gets it, looks now and then while it is lent whether the rental
// uses its own GPUs only, and compares when it comes back: no process left, no memory held by nobody, the
// settings as they were, no new error. What is not as it was is withheld from other rentals until it is, or
// until the machine is restarted; that is kept in a file. Everything is seen from outside, by what the driver
// and the kernel tell; nothing runs in the rental.
package lending
