/* uring_ops.c - tickets, and the ends of an op. See uring_ops.h. Called by the other files of the ring machine. It
 * makes no system call and knows no kind of op.
 *
 * The kernel knows an op by its ticket, a number with a generation, so that nothing it says late reaches a wrong op.
 *
 * SPDX-License-Identifier: MIT */
#include "uring_ops.h"

#include "mem.h"

/* ---- tickets ----------------------------------------------------------------------------------------------------- */

int al__uring_take_ticket(al__uring *self, al_op *op) {
  if (!self->free_ticket) {
    size_t old = self->n_tickets;
    void *tickets = self->tickets;
    int err = al__array_grow(&tickets, &self->n_tickets, sizeof(*self->tickets), old + 1);
    if (err) return err;
    self->tickets = tickets;
    for (size_t i = self->n_tickets; i-- > old; self->free_ticket = (uint32_t)i + 1)
      self->tickets[i] = (al__uring_ticket){.next_free = self->free_ticket};
  }
  op->tag = self->free_ticket - 1;
  self->free_ticket = self->tickets[op->tag].next_free;
  self->tickets[op->tag].op = op;
  return 0;
}

static void give_ticket(al__uring *self, uint32_t index) {
  al__uring_ticket *at = &self->tickets[index];
  at->op = NULL;
  at->generation++;
  at->next_free = self->free_ticket;
  self->free_ticket = index + 1;
}

/* ---- the states of an op ----------------------------------------------------------------------------------------- */

void al__uring_finish(al__uring *self, al_op *op, int result) {
  al__uring_unlist(self, op);
  give_ticket(self, op->tag);
  op->state = AL_URING_FINISHED;
  op->tag = (uint32_t)result;
  al__ops_append(&self->finished, op);
}

void al__uring_end(al_loop *loop, al_op *op, int result) {
  al__uring_unlist(loop->machine, op);
  give_ticket(loop->machine, op->tag);
  al__op_end(loop, op, result);
}

void al__uring_again(al__uring *self, al_op *op) {
  if (op->state == AL_URING_ENDING)
    al__uring_finish(self, op, -ECANCELED);
  else
    al__uring_queue(self, op);
}
