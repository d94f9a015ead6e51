// Package rentaltest holds an engine and a relay in memory, and the suites by which these and the
// real ones prove that they keep to the contracts of package rental.
package rentaltest
