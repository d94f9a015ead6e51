package control

// Dial reaches the agent of a state directory without a Client.
var Dial = dial
