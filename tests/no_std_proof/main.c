/* Calls the freestanding library, so that it is linked and run, not only compiled. */
#include <stdint.h>
uint64_t twin_round_trip(uint64_t number);
int main(void) { return twin_round_trip(4711) == 4711 ? 0 : 1; }
