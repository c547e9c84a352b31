"""The paper's findings, checked at the embedded checkpoint's scale: arms, seeds, and a rule that judges them."""
