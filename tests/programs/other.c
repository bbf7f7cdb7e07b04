/* A second unit: a static of the same name as one of rec.c's, and the structure that is only declared there. */
static volatile char hidden = 'x';
struct forward { short s; struct forward *self; };
struct forward here = {7, &here};
int other(void) { return hidden; }
